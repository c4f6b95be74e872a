// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {vm, Vm} from "./Vm.sol";
import {ObedientToken, RecordingPermit2} from "./Doubles.sol";
import {IPermit2} from "../src/local/Permit2.sol";
import {LocalPermit2Proxy} from "../src/local/LocalPermit2Proxy.sol";
import {X402UptoPermit2Proxy} from "../src/local/X402UptoPermit2Proxy.sol";

contract X402UptoPermit2ProxyTest {
    X402UptoPermit2Proxy private constant PROXY = X402UptoPermit2Proxy(0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002);
    RecordingPermit2 private constant PERMIT2 = RecordingPermit2(0x000000000022D473030F116dDEE9F6B43aC78BA3);
    address private constant PAYER = address(0xA11CE);
    address private constant PAYEE = address(0xB0B);
    address private constant FACILITATOR = address(0xFAC);
    uint256 private constant NOW = 1_767_225_600;
    bytes private constant SIGNATURE = hex"010203";

    ObedientToken private token;

    function setUp() public {
        vm.etch(address(PROXY), type(X402UptoPermit2Proxy).runtimeCode);
        vm.etch(address(PERMIT2), type(RecordingPermit2).runtimeCode);
        vm.warp(NOW);
        token = new ObedientToken(ObedientToken.Mood.Agree);
    }

    function test_the_constants_are_those_of_the_specification() public view {
        require(address(PROXY.PERMIT2()) == address(PERMIT2), "PERMIT2");
        require(
            PROXY.WITNESS_TYPEHASH() == 0xd4171c445a74218b01d4fd8af34ff1106580ea1e36ff837e64484bfaa2253b75,
            "WITNESS_TYPEHASH"
        );
        bytes32 fullType = keccak256(
            abi.encodePacked(
                "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,",
                PROXY.WITNESS_TYPE_STRING()
            )
        );
        require(fullType == 0x51dff6974ad4388c499e7fcfe838d2bd767162553a144098ce20ea661d70c2ee, "WITNESS_TYPE_STRING");
    }

    function test_settle_asks_permit2_for_the_charge_only() public {
        vm.recordLogs();
        vm.prank(FACILITATOR);
        PROXY.settle(permitOf(10), 3, PAYER, witness(), SIGNATURE);

        require(PERMIT2.permitted() == 10 && PERMIT2.requested() == 3, "amounts");
        require(PERMIT2.token() == address(token) && PERMIT2.to() == PAYEE && PERMIT2.owner() == PAYER, "details");
        bytes32 hash = keccak256(abi.encode(PROXY.WITNESS_TYPEHASH(), PAYEE, FACILITATOR, NOW));
        require(PERMIT2.witness() == hash, "witness");
        require(keccak256(bytes(PERMIT2.witnessTypeString())) == keccak256(bytes(PROXY.WITNESS_TYPE_STRING())), "type");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        require(logs.length == 1 && logs[0].topics[0] == LocalPermit2Proxy.Settled.selector, "log");
    }

    function test_the_whole_permitted_amount_may_be_charged() public {
        vm.prank(FACILITATOR);
        PROXY.settle(permitOf(10), 10, PAYER, witness(), SIGNATURE);
        require(PERMIT2.requested() == 10, "requested");
    }

    function test_refusals_come_in_their_order() public {
        X402UptoPermit2Proxy.Witness memory bad = X402UptoPermit2Proxy.Witness(address(0), FACILITATOR, NOW + 1);
        X402UptoPermit2Proxy.Witness memory early = X402UptoPermit2Proxy.Witness(PAYEE, FACILITATOR, NOW + 1);

        vm.expectRevert(X402UptoPermit2Proxy.AmountExceedsPermitted.selector);
        PROXY.settle(permitOf(0), 1, address(0), bad, SIGNATURE);
        vm.expectRevert(X402UptoPermit2Proxy.UnauthorizedFacilitator.selector);
        PROXY.settle(permitOf(0), 0, address(0), bad, SIGNATURE);
        vm.prank(FACILITATOR);
        vm.expectRevert(LocalPermit2Proxy.InvalidAmount.selector);
        PROXY.settle(permitOf(1), 0, address(0), bad, SIGNATURE);
        vm.prank(FACILITATOR);
        vm.expectRevert(LocalPermit2Proxy.InvalidOwner.selector);
        PROXY.settle(permitOf(1), 1, address(0), bad, SIGNATURE);
        vm.prank(FACILITATOR);
        vm.expectRevert(LocalPermit2Proxy.InvalidDestination.selector);
        PROXY.settle(permitOf(1), 1, PAYER, bad, SIGNATURE);
        vm.prank(FACILITATOR);
        vm.expectRevert(LocalPermit2Proxy.PaymentTooEarly.selector);
        PROXY.settle(permitOf(1), 1, PAYER, early, SIGNATURE);
        require(PERMIT2.calls() == 0, "Permit2 was reached");
    }

    function test_a_settlement_cannot_start_inside_another() public {
        PERMIT2.callBackWith(abi.encodeCall(PROXY.settle, (permitOf(1), 1, PAYER, witness(), SIGNATURE)));
        vm.prank(FACILITATOR);
        vm.expectRevert(LocalPermit2Proxy.ReentrancyGuardReentrantCall.selector);
        PROXY.settle(permitOf(1), 1, PAYER, witness(), SIGNATURE);
    }

    function test_settle_with_permit_approves_permit2_first() public {
        vm.recordLogs();
        vm.prank(FACILITATOR);
        PROXY.settleWithPermit(approval(10), permitOf(10), 3, PAYER, witness(), SIGNATURE);

        require(token.permittedSpender() == address(PERMIT2) && token.permittedValue() == 10, "approval");
        require(PERMIT2.requested() == 3, "requested");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        require(logs.length == 1 && logs[0].topics[0] == LocalPermit2Proxy.SettledWithPermit.selector, "log");
    }

    function test_settle_with_permit_compares_with_the_permitted_amount_not_the_charge() public {
        vm.prank(FACILITATOR);
        vm.expectRevert(LocalPermit2Proxy.Permit2612AmountMismatch.selector);
        PROXY.settleWithPermit(approval(3), permitOf(10), 3, PAYER, witness(), SIGNATURE);
    }

    function test_settle_with_permit_is_for_the_facilitator_only() public {
        vm.expectRevert(X402UptoPermit2Proxy.UnauthorizedFacilitator.selector);
        PROXY.settleWithPermit(approval(10), permitOf(10), 3, PAYER, witness(), SIGNATURE);
    }

    function permitOf(uint256 amount) private view returns (IPermit2.PermitTransferFrom memory) {
        return IPermit2.PermitTransferFrom(IPermit2.TokenPermissions(address(token), amount), 5, NOW + 60);
    }

    function witness() private pure returns (X402UptoPermit2Proxy.Witness memory) {
        return X402UptoPermit2Proxy.Witness(PAYEE, FACILITATOR, NOW);
    }

    function approval(uint256 value) private pure returns (LocalPermit2Proxy.EIP2612Permit memory) {
        return LocalPermit2Proxy.EIP2612Permit(value, NOW + 60, bytes32(uint256(1)), bytes32(uint256(2)), 27);
    }
}
